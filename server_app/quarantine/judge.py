"""Name the devices of a round that are far outside, by what they sent, now and before.

Three kinds of checks, each with a limit far from what honest devices were seen to do (docs/adr/0010):

- against what every run expects: logits that confidently deny the device's own labels, features without any
  signal;
- against the device's own past: other labels for the same samples, features that have nothing to do with
  those of the same samples before, another scale;
- against the other devices: features of another scale or without spatial structure, labels that do not go
  with the features as theirs do (:mod:`server_app.quarantine.probe`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from server_app.quarantine.evidence import Evidence
from server_app.quarantine.probe import label_agreement

# A majority of few is no majority.
FEWEST_PEERS = 4
_MOST_CONFIDENTLY_WRONG = 0.3
_MOST_LOGIT_LOSS = 3.0  # times the loss of knowing nothing, log(classes)
_MOST_ZEROS = 0.999
_MOST_CHANGED_LABELS = 0.05
_LEAST_CORRELATION = 0.3
_FEWEST_SHARED = 16
_PAST_SCALE_FACTOR = 4.0
_PEER_SCALE_FACTOR = 8.0
_LEAST_SMOOTHNESS = 0.25  # times the others'
_STRUCTURED = 0.2
_LEAST_AGREEMENT = 0.2
_FEWEST_EXPECTED_HITS = 8.0
_TINY = 1e-12


def judge(
    evidence: Mapping[str, Evidence],
    *,
    num_classes: int,
    first: Mapping[str, Evidence],
    last: Mapping[str, Evidence],
    same_start: bool,
    trusted: Collection[str] = (),
) -> dict[str, str]:
    """Name the devices whose uploads must not be trained on, with the reason for a person.

    Args:
        evidence: What each device of this round sent.
        num_classes: Classes of the run.
        first: The first upload of each device that was accepted before, of this round's or not.
        last: The last one of each device of this round that was accepted before.
        same_start: Whether all devices began from the same weights, without which features of different
            devices cannot be compared sample by sample.
        trusted: Devices that a person vouches for: never named, but compared with.

    Returns:
        Reasons by client id, sorted. Comparisons with other devices never name half of the round's or more.
    """
    certain: dict[str, str] = {}
    for client_id in sorted(evidence):
        reason = _impossible(evidence[client_id], num_classes)
        if not reason and client_id in last:
            reason = _unlike_its_past(evidence[client_id], last[client_id])
        if reason and client_id not in trusted:
            certain[client_id] = reason
    rest = {client_id: each for client_id, each in evidence.items() if client_id not in certain}
    compared = _unlike_the_others(rest, trusted)
    plain = {client_id: each for client_id, each in rest.items() if client_id not in compared}
    if same_start:
        compared |= _mislabelled(plain, first, trusted)
    if 2 * len(compared) >= len(evidence):
        # Who is outside when half of them are? Then nobody is, for these comparisons.
        compared = {}
    return dict(sorted({**certain, **compared}.items()))


def _impossible(evidence: Evidence, num_classes: int) -> str:
    if evidence.confidently_wrong > _MOST_CONFIDENTLY_WRONG:
        return (
            f"its logits confidently name another class than its own label for "
            f"{evidence.confidently_wrong:.0%} of the samples, expected at most {_MOST_CONFIDENTLY_WRONG:.0%}"
        )
    most = _MOST_LOGIT_LOSS * math.log(max(2, num_classes))
    if evidence.logit_loss > most:
        return (
            f"the loss of its logits on its own labels is {evidence.logit_loss:.3g}, "
            f"expected at most {most:.3g}"
        )
    if evidence.zeros > _MOST_ZEROS:
        return f"{evidence.zeros:.1%} of its features are zero"
    return ""


def _unlike_its_past(now: Evidence, before: Evidence) -> str:
    _, here, there = np.intersect1d(now.sample_ids, before.sample_ids, return_indices=True)
    if len(here) == 0:
        return ""
    changed = float(np.mean(now.labels[here] != before.labels[there]))
    if changed > _MOST_CHANGED_LABELS:
        return f"{changed:.0%} of its samples have another label than before"
    factor = _factor(now.scale, before.scale)
    if factor > _PAST_SCALE_FACTOR:
        return f"the scale of its features is {now.scale:.3g}, it was {before.scale:.3g}"
    if len(here) < _FEWEST_SHARED:
        return ""
    correlation = _correlation(now.pooled[here], before.pooled[there])
    if correlation < _LEAST_CORRELATION:
        return (
            f"its features correlate {correlation:.2f} with those of the same samples before, "
            f"expected at least {_LEAST_CORRELATION}"
        )
    return ""


def _correlation(now: NDArray[np.float32], before: NDArray[np.float32]) -> float:
    """Median over channels of the correlation of their means, which augmented views keep."""
    left, right = (values.astype(np.float64).mean(axis=(2, 3)) for values in (now, before))
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    spread = np.sqrt(np.mean(left**2, axis=0) * np.mean(right**2, axis=0))
    alive = spread > _TINY
    if not alive.any():
        return 1.0
    return float(np.median(np.mean(left * right, axis=0)[alive] / spread[alive]))


def _factor(one: float, other: float) -> float:
    low, high = sorted((max(one, _TINY), max(other, _TINY)))
    return high / low


def _unlike_the_others(evidence: Mapping[str, Evidence], trusted: Collection[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for client_id, own in sorted(evidence.items()):
        others = [other for owner, other in evidence.items() if owner != client_id]
        if len(others) < FEWEST_PEERS or client_id in trusted:
            continue
        scale = float(np.median([other.scale for other in others]))
        smoothness = float(np.median([other.smoothness for other in others]))
        if _factor(own.scale, scale) > _PEER_SCALE_FACTOR:
            named[client_id] = (
                f"the scale of its features is {own.scale:.3g}, half of the others are near {scale:.3g}"
            )
        elif smoothness > _STRUCTURED and own.smoothness < _LEAST_SMOOTHNESS * smoothness:
            named[client_id] = (
                f"neighbouring features correlate {own.smoothness:.2f}, the others' {smoothness:.2f}: "
                "no image leads to them"
            )
    return named


def _mislabelled(
    evidence: Mapping[str, Evidence], first: Mapping[str, Evidence], trusted: Collection[str]
) -> dict[str, str]:
    """Newcomers' labels against everybody's first upload: later, extractors have drifted apart.

    One after another, the worst first: its labels spoil the others' comparison too.
    """
    compared = {**evidence, **first}
    newcomers = {client_id for client_id in evidence if client_id not in first and client_id not in trusted}
    named: dict[str, str] = {}
    while newcomers and len(compared) > FEWEST_PEERS:
        agreement = label_agreement(compared)
        suspects = [
            (agreement[client_id].expected - agreement[client_id].hits, client_id)
            for client_id in newcomers
            if agreement[client_id].expected >= _FEWEST_EXPECTED_HITS
            and agreement[client_id].ratio < _LEAST_AGREEMENT
        ]
        if not suspects:
            break
        worst = max(suspects)[1]
        judged = agreement[worst]
        named[worst] = (
            f"its labels do not go with its features: of {judged.num_samples} samples, {judged.hits} look "
            f"like the other devices' samples of that label, expected about {judged.expected:.0f}"
        )
        del compared[worst]
        newcomers.discard(worst)
    return named
