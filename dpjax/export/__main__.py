"""python -m dpjax.export: see `dpjax.export.stablehlo`."""

from dpjax.config import flags
from dpjax.export.stablehlo import main

if __name__ == "__main__":
    flags.run(main)
