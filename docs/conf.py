"""The site: ``make docs``; ``make gallery`` runs the tutorials for their output and pictures.

Nothing is fetched to build it. ``INTERSPHINX=1`` links into the sites of torch, tensordict and TorchRL,
which takes a network.
"""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "torchrl_ob"
author = "the torchrl_ob authors"
project_copyright = author
release = version = installed_version("torchrl-ob")

extensions = [
    "api_entries",
    "config_tables",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",  # a reader's browser fetches MathJax; the build does not
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "tutorials/*.ipynb", "tutorials/*.py", "tutorials/*.json"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say what an argument is
autodoc_inherit_docstrings = False
autodoc_mock_imports = ["gymnasium_robotics", "jax", "jaxmarl", "mujoco"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes as a list, beside a named tuple's own entries
default_role = "any"
nitpick_ignore_regex = [(r"py:.*", r"(?!torchrl_ob\.).*")]  # other projects, unless INTERSPHINX=1
if os.environ.get("INTERSPHINX") == "1":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "tensordict": ("https://docs.pytorch.org/tensordict/stable", None),
        "torchrl": ("https://docs.pytorch.org/rl/stable", None),
    }

sphinx_gallery_conf = {
    "examples_dirs": ["../tutorials"],
    "gallery_dirs": ["tutorials"],
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"__init__\.py",
    "within_subsection_order": "gallery_runs.order",
    "reset_modules": ("matplotlib", "gallery_runs.reset"),
    "image_scrapers": ("gallery_runs.saved_pictures",),
    "plot_gallery": os.environ.get("GALLERY") == "1",
    "abort_on_example_error": True,
    "min_reported_time": 0,
    "show_memory": False,
    "remove_config_comments": True,
    "write_computation_times": os.environ.get("GALLERY") == "1",
    "download_all_examples": False,
    "show_signature": False,
}

html_theme = "pydata_sphinx_theme"
html_title = f"torchrl_ob {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
