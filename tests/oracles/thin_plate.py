"""A thin-plate spline one number at a time (Bookstein, IEEE TPAMI 1989), solved by elimination written out here."""

import math


def kernel(one, other):
    """U(r) = r^2 ln r^2 of the distance of two points."""
    squared = (one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2
    return squared * math.log(squared) if squared > 0 else 0.0


def solve(matrix, right):
    """Gauss elimination with the largest pivot of each column."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for row in range(column + 1, size):
            factor = rows[row][column] / rows[column][column]
            for place in range(column, size + 1):
                rows[row][place] -= factor * rows[column][place]
    found = [0.0] * size
    for row in reversed(range(size)):
        known = sum(rows[row][place] * found[place] for place in range(row + 1, size))
        found[row] = (rows[row][size] - known) / rows[row][row]
    return found


def spline(points, values):
    """The function of (x, y) that takes each value at its point and bends least."""
    size = len(points)
    matrix = [[kernel(one, other) for other in points] + [1.0, *one] for one in points]
    matrix += [[1.0] * size + [0.0] * 3]
    matrix += [[point[axis] for point in points] + [0.0] * 3 for axis in (0, 1)]
    weights = solve(matrix, [*values, 0.0, 0.0, 0.0])

    def evaluate(place):
        bent = sum(weight * kernel(place, point) for weight, point in zip(weights, points, strict=False))
        return bent + weights[size] + weights[size + 1] * place[0] + weights[size + 2] * place[1]

    return evaluate


def warp(image, displacements, side):
    """An image, nested lists [C][H][W], read where the spline through side x side control points says; black outside.

    displacements[j] = (x, y), in halves of the image, of control point j, row by row.
    """
    ticks = [2 * i / (side - 1) - 1 for i in range(side)]
    points = [(x, y) for y in ticks for x in ticks]
    along = [spline(points, [displacement[axis] for displacement in displacements]) for axis in (0, 1)]
    height, width = len(image[0]), len(image[0][0])
    out = [[[0.0] * width for _ in range(height)] for _ in image]
    for row in range(height):
        for column in range(width):
            u = ((2 * column + 1) / width - 1, (2 * row + 1) / height - 1)
            x = ((u[0] + along[0](u) + 1) * width - 1) / 2
            y = ((u[1] + along[1](u) + 1) * height - 1) / 2
            for near_y in (math.floor(y), math.floor(y) + 1):
                for near_x in (math.floor(x), math.floor(x) + 1):
                    if 0 <= near_y < height and 0 <= near_x < width:
                        weight = (1 - abs(x - near_x)) * (1 - abs(y - near_y))
                        for channel, plane in enumerate(image):
                            out[channel][row][column] += weight * plane[near_y][near_x]
    return out
