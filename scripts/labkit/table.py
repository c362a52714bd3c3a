"""Text tables: first column to the left, the others to the right."""


def table(header, rows, *, indent=""):
    """Lays out rows of text; a row of one cell is a heading across the table, None a rule."""
    full = [row for row in rows if row and len(row) > 1]
    widths = [max(len(str(row[i])) for row in [header, *full]) for i in range(len(header))]
    rule = "  ".join("-" * width for width in widths)
    lines = [_line(header, widths), rule]
    for row in rows:
        if row is None:
            lines.append(rule)
        elif len(row) == 1:
            lines.append(str(row[0]))
        else:
            lines.append(_line(row, widths))
    return "\n".join(f"{indent}{line}".rstrip() for line in lines)


def _line(row, widths):
    first, *rest = [str(cell) for cell in row]
    cells = [first.ljust(widths[0])]
    cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
    return "  ".join(cells)


def number(value, digits=1, unit=""):
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}{unit}"
