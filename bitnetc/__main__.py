"""python -m bitnetc"""

from bitnetc.cli import main

main(prog_name="bitnetc")
