"""The noise levels that a network is told of by its times."""

from spatial_functa_pipeline.models.paths import DiscretePath, ExplodingPath


def level_at(path, times):
    """Of times `(B,)`."""
    match path:
        case DiscretePath():
            return path.at(times.long())
        case ExplodingPath():
            return path.at(times / (1000 - times))
        case _:
            return path.at(times / 1000)
