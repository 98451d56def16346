"""What setup.cfg cannot say: two packages that lie beside `dpjax/` in a checkout.

The recipes and the demonstrations are where people look for them, in `configs/` and
`demonstrations/`; a wheel carries them inside the package, so that it installs no other name.
"""

from setuptools import find_packages, setup

CARRIED = {"dpjax.recipes": "configs", "dpjax.demonstrations": "demonstrations"}

setup(
    packages=[*find_packages(include=["dpjax", "dpjax.*"]), *CARRIED],
    package_dir=CARRIED,
    package_data={
        "dpjax": ["py.typed"],
        "dpjax.runs": ["policies/*/*"],
        "dpjax.demonstrations": ["README.md", "*/*/*"],
    },
)
