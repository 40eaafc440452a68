"""Data: a name becomes rows (sources), rows become batches (resident, streaming), batches are cropped (crops)."""
