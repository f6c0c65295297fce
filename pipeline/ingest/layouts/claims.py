"""Files that belong to a layout with a structure of its own, so that the general layouts leave them to it."""

from pipeline.ingest.layouts import bids, decathlon, nnunet, synthrad
from pipeline.ingest.source_tree import SourceTree


def claimed(tree: SourceTree) -> frozenset[str]:
    """Names of the files that a special layout knows; what else lies in the tree makes it ambiguous."""
    return bids.claims(tree) | synthrad.claims(tree) | decathlon.claims(tree) | nnunet.claims(tree)
