"""The shape of every refusal in `models`: the rule broken, the value found, the values allowed, what to change."""


def broken_rule(rule: str, *, found: object, allowed: str, change: str) -> ValueError:
    """Build the `ValueError` that a network, a loss or a step raises when a caller breaks one of its rules.

    Args:
        rule: the rule, as a sentence.
        found: the value found.
        allowed: the values that are allowed.
        change: what the caller should change.

    Returns:
        The error, to be raised by the caller.
    """
    return ValueError(f"{rule}\n  found:   {found}\n  allowed: {allowed}\n  change:  {change}")
