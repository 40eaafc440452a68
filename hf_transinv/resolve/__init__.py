"""Where names lead: files that come with the library, local copies of the Hub, the Hub."""
