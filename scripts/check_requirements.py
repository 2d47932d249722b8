"""Exit 0 when this interpreter has every requirement of the given file, else say what is missing and exit 1."""

import sys
from importlib import metadata
from pathlib import Path

try:
    from packaging.requirements import Requirement
except ImportError:
    from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]


def missing(file):
    """Requirements of a file (``-r`` lines followed) that the environment does not satisfy."""
    found = []
    for line in Path(file).read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found += missing(Path(file).parent / line[3:].strip())
        elif line:
            requirement = Requirement(line)
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
            try:
                version = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                found.append(f"{requirement} (not installed)")
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                found.append(f"{requirement} (found {version})")
    return found


if __name__ == "__main__":
    problems = missing(sys.argv[1])
    if problems:
        sys.exit("missing: " + ", ".join(problems))
