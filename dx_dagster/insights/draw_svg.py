"""Draws a chart: reads its Vega-Lite specification from standard input and writes an SVG image to standard output.

Run it as a process of its own: vl-convert takes 100 MB and more, and keeps them. It loads no data from anywhere.
"""

import sys

import vl_convert


def main() -> None:
    svg = vl_convert.vegalite_to_svg(sys.stdin.buffer.read().decode(), allowed_base_urls=[])
    sys.stdout.buffer.write(svg.encode())


if __name__ == "__main__":
    main()
