"""Writes runtime_c/bnc_layouts.h, the C view of layout.py: `make layouts`.

With --check it writes nothing and exits with 1 when the committed file is stale.
"""

import sys

from bitnetc import resources
from bitnetc.emit import environment
from bitnetc.layout import LAYOUTS


def render() -> str:
    """The header's text."""
    template = environment().get_template("bnc_layouts.h.jinja")
    return template.render(layouts=LAYOUTS.values())


if __name__ == "__main__":
    path = resources.RUNTIME / "bnc_layouts.h"
    text = render()
    if "--check" in sys.argv:
        if path.read_text() != text:
            sys.exit("runtime_c/bnc_layouts.h is stale: run `make layouts`")
    else:
        path.write_text(text)
