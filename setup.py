"""The package far_ho_tf."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$',
    (ROOT / "far_ho_tf" / "__init__.py").read_text(encoding="utf-8"),
    re.MULTILINE,
).group(1)
RUFF = "ruff==0.17.6"
EXAMPLES = ["tensorflow-datasets>=4.9", "importlib_resources", "matplotlib>=3.8"]

setup(
    name="far_ho_tf",
    version=VERSION,
    description="Hypergradients through training, for TensorFlow 2 and Keras 3",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The far_ho_tf developers",
    license="MIT",
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=find_packages(include=["far_ho_tf", "far_ho_tf.*"]),
    package_data={"far_ho_tf": ["py.typed"]},
    python_requires=">=3.10,<3.14",
    # Below releases that may change what `python -m tools.private_names` lists.
    install_requires=[
        "tensorflow>=2.20,<2.22",
        "keras>=3.10,<3.16",
        "numpy>=1.26",
        "absl-py>=2.0",
    ],
    extras_require={
        "examples": EXAMPLES,
        "tests": ["pytest>=8", "pytest-xdist>=3.7", *EXAMPLES],
        "lint": [RUFF, "pyright[nodejs]==1.1.414"],
        # Pinned, as the site is built strictly: another version may warn of more.
        "docs": [
            "mkdocs==1.6.1",
            "mkdocs-material==9.8.2",
            "mkdocstrings[python]==1.0.8",
            "mkdocstrings-python==2.0.11",
            "griffelib==2.4.1",
            "latex2mathml==3.81.1",
            RUFF,  # It writes signatures over several lines.
        ],
    },
)
