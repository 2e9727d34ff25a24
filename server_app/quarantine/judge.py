"""Name the devices of a round that are far outside, by what they sent, now and before.

Four kinds of checks, each on what an honest device always shows, whatever it looks at (docs/adr/0021):

- against what every run expects: logits that confidently deny the device's own labels, features without any
  signal, or without what every convolution leaves in them;
- against its views: the server knows where each crop shows padding;
- against the device's own past: other labels for the same samples, images that are not those of before;
- against the other devices: another scale, labels that go with other features than theirs do
  (:mod:`server_app.quarantine.probe`).

Where there is nothing to compare, a check says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from server_app.quarantine.evidence import Evidence
from server_app.quarantine.past import recognise
from server_app.quarantine.probe import label_agreement, validation_agreement

# A majority of few is no majority.
FEWEST_PEERS = 4
_MOST_CONFIDENTLY_WRONG = 0.3
_MOST_LOGIT_LOSS = 3.0  # times the loss of knowing nothing, log(classes)
_MOST_ZEROS = 0.999
_LEAST_STRUCTURE = 1.5  # of independent numbers: 1
_FEWEST_NUMBERS = 16
_MOST_REPEATS, _FEW_REPEATS = 0.5, 0.1
_FEWEST_PADDED = 16
_LEAST_IMAGE_COVARIANCE = 0.05
_MOST_IN_PADDING, _USUAL_IN_PADDING = 0.5, 0.25  # of the covariance in the image
_FEWEST_WITNESSES = 2
_MOST_CHANGED_LABELS = 0.05
_LEAST_RECOGNISED, _ALWAYS_RECOGNISED = 0.65, 0.8
_MOST_SCALE = 8.0
_LEAST_AGREEMENT = 0.5
_MOST_DEFICIT, _MOST_DEFICIT_IN_VALIDATION = 3.5, 3.0  # standard deviations of chance
# Of labels of which fewer stayed, that they go with other features than others' says nothing.
_LEAST_KEPT = 0.9
_MOST_STRANGENESS = 1.4
_TINY = 1e-12


def judge(
    evidence: Mapping[str, Evidence],
    *,
    num_classes: int,
    first: Mapping[str, Evidence],
    last: Mapping[str, Evidence],
    same_start: bool,
    trusted: Collection[str] = (),
    trained_on: Mapping[str, Evidence] | None = None,
    kept_labels: Mapping[str, float] | None = None,
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
        trained_on: Of validation samples: the devices' first training samples, which their labels are
            compared with. None where the evidence is of training samples.
        kept_labels: Of devices whose labels went through randomised response, the chance that one stayed: so
            much less can be said of them by their labels.

    Returns:
        Reasons by client id, sorted. Comparisons with other devices never name half of the round's or more.
    """
    certain: dict[str, str] = {}
    for client_id in sorted(evidence):
        own = evidence[client_id]
        kept = (kept_labels or {}).get(client_id, 1.0)
        reason = _impossible(own) or (_denied(own, num_classes, kept) if trained_on is None else "")
        if not reason and client_id in last:
            reason = _unlike_its_past(own, first.get(client_id, last[client_id]), last[client_id])
        if reason and client_id not in trusted:
            certain[client_id] = reason
    rest = {client_id: each for client_id, each in evidence.items() if client_id not in certain}
    compared = _unlike_the_others(rest, last, trusted)
    plain = {client_id: each for client_id, each in rest.items() if client_id not in compared}
    if same_start:
        telling = {each for each in plain if (kept_labels or {}).get(each, 1.0) >= _LEAST_KEPT}
        said = {each: own for each, own in plain.items() if each in telling}
        before = {each: own for each, own in first.items() if each in telling or each not in plain}
        compared |= _mislabelled(said, before, trusted, trained_on)
        if trained_on is None:
            hidden = {each: own for each, own in plain.items() if each not in telling and each not in first}
            others = {each: own for each, own in (said | before).items() if each not in compared}
            compared |= _randomised_and_wrong(hidden, others, kept_labels or {}, num_classes, trusted)
    if 2 * len(compared) >= len(evidence):
        # Who is outside when half of them are? Then nobody is, for these comparisons.
        compared = {}
    return dict(sorted({**certain, **compared}.items()))


def not_compared(own: Evidence) -> list[str]:
    """What the judge can say nothing of, and why: for a person who wonders what it has looked at."""
    silent = []
    if _trace(own) is None:
        why = (
            "few samples with much padding" if own.padded_samples < _FEWEST_PADDED else "hardly any contrast"
        )
        silent.append(f"padding of its views ({why})")
    if not list(recognise(own, own).parts()):
        silent.append("its past (few samples, or all of one image)")
    return silent


def _randomised_and_wrong(
    evidence: Mapping[str, Evidence],
    others: Mapping[str, Evidence],
    kept_labels: Mapping[str, float],
    num_classes: int,
    trusted: Collection[str],
) -> dict[str, str]:
    """Newcomers that exchange labels, beside those that do not: no cover for labels that are moved.

    Each is compared with the others alone, and held to what so many exchanged labels should still reach.
    """
    named: dict[str, str] = {}
    if len(others) < FEWEST_PEERS:
        return named
    for client_id in sorted(evidence.keys() - set(trusted)):
        its = label_agreement({**others, client_id: evidence[client_id]})[client_id].of_randomised(
            kept_labels[client_id], num_classes
        )
        if (
            its.ratio < _LEAST_AGREEMENT
            and its.deficit > _MOST_DEFICIT
            and its.strangeness < _MOST_STRANGENESS
        ):
            named[client_id] = (
                f"its labels do not go with its features, even as randomised ones: {its.standing:.0%} of "
                f"comparisons speak for them, expected about {its.expected:.0%}, 50% is chance"
            )
    return named


def doubtful_labels(
    evidence: Mapping[str, Evidence], first: Mapping[str, Evidence], trusted: Collection[str] = ()
) -> dict[str, str]:
    """Say whose labels do not go with its features as the others' do, though its features are others, too.

    It may see another world, or say wrong labels and have trained on them, which moves features as well:
    nobody is named for it, and a person looks.

    Args:
        evidence: What each device that is trained on, and exchanges no labels, has sent in this round.
        first: The first uploads of devices that were there before.
        trusted: Devices that a person vouches for.

    Returns:
        What is in doubt, by client id.
    """
    compared = {**evidence, **first}
    newcomers = evidence.keys() - first.keys() - set(trusted)
    if not newcomers or len(compared) <= FEWEST_PEERS:
        return {}
    agreement = label_agreement(compared)
    return {
        client_id: (
            f"its labels do not go with its features as the others' do ({its.standing:.0%}, expected about "
            f"{its.expected:.0%}, 50% is chance), and its features are unlike the others' as well: either it "
            "sees other things, or its labels are wrong, and it has trained on them"
        )
        for client_id in sorted(newcomers)
        if (its := agreement[client_id]).ratio < _LEAST_AGREEMENT and its.deficit > _MOST_DEFICIT
    }


def odd_among_few(evidence: Mapping[str, Evidence]) -> dict[str, str]:
    """Say whose scale is far from the others', where they are too few to say who is right.

    Nobody is named for it: a person looks.

    Args:
        evidence: What each device of this round sent.

    Returns:
        What is odd, by client id.
    """
    odd: dict[str, str] = {}
    if len(evidence) - 1 >= FEWEST_PEERS:
        return odd
    for client_id, own in sorted(evidence.items()):
        others = [other.scale for owner, other in evidence.items() if owner != client_id]
        if others and own.scale > _MOST_SCALE * max(others):
            odd[client_id] = (
                f"the scale of its features is {own.scale:.3g}, the others' at most {max(others):.3g}: of "
                f"{len(evidence)} devices that is too few to say who is right"
            )
    return odd


def _denied(evidence: Evidence, num_classes: int, kept: float) -> str:
    # A label that was exchanged may be denied.
    most_wrong = 1 - kept * (1 - _MOST_CONFIDENTLY_WRONG)
    if evidence.confidently_wrong > most_wrong:
        return (
            f"its logits confidently name another class than its own label for "
            f"{evidence.confidently_wrong:.0%} of the samples, expected at most {most_wrong:.0%}"
        )
    most = _MOST_LOGIT_LOSS * math.log(max(2, num_classes))
    if evidence.logit_loss > most:
        return (
            f"the loss of its logits on its own labels is {evidence.logit_loss:.3g}, "
            f"expected at most {most:.3g}"
        )
    return ""


def _impossible(evidence: Evidence) -> str:
    if evidence.zeros > _MOST_ZEROS:
        return f"{evidence.zeros:.1%} of its features are zero"
    if evidence.spread <= _TINY:
        return "its features are the same number everywhere: is its camera covered?"
    if evidence.structure < _LEAST_STRUCTURE and evidence.patches.shape[1] > 1:
        return "neighbouring features are independent of each other: no image leads to them"
    if evidence.repeats > _MOST_REPEATS:
        return (
            f"the features of {evidence.repeats:.0%} of its samples are those of the sample before, "
            "though both images are cut differently"
        )
    return ""


def _unlike_its_past(now: Evidence, first: Evidence, last: Evidence) -> str:
    _, here, there = np.intersect1d(now.sample_ids, last.sample_ids, return_indices=True)
    if len(here) == 0:
        return ""
    changed = float(np.mean(now.labels[here] != last.labels[there]))
    if changed > _MOST_CHANGED_LABELS:
        return f"{changed:.0%} of its samples have another label than before"
    if now.copies > _MOST_REPEATS and last.copies < _FEW_REPEATS:
        return (
            f"the features of {now.copies:.0%} of its samples are those of the sample before, they were not"
        )
    used_to = {label: rank for label, rank, _ in recognise(last, first).parts()}
    for label, rank, num in recognise(now, last).parts():
        if rank < _LEAST_RECOGNISED and used_to.get(label, 1.0) > _ALWAYS_RECOGNISED:
            of = "" if label is None else f" of class {label}"
            return (
                f"{num} of its samples{of} are no longer the images that they were: their features are more "
                f"like their own of before than {rank:.0%} of the others are, 50% is chance"
            )
    return ""


def _unlike_the_others(
    evidence: Mapping[str, Evidence], last: Mapping[str, Evidence], trusted: Collection[str]
) -> dict[str, str]:
    named: dict[str, str] = {}
    traces = {client_id: trace for client_id, each in evidence.items() if (trace := _trace(each)) is not None}
    for client_id, own in sorted(evidence.items()):
        if client_id in trusted:
            continue
        others = [other.scale for owner, other in evidence.items() if owner != client_id]
        past = [last[client_id].scale] if client_id in last else []
        peers = [float(np.median(others))] if len(others) >= FEWEST_PEERS else []
        usual = max([*peers, *past], default=math.inf)
        witnesses = [trace for owner, trace in traces.items() if owner != client_id]
        if own.scale > _MOST_SCALE * usual:
            named[client_id] = f"the scale of its features is {own.scale:.3g}, expected about {usual:.3g}"
        elif (
            traces.get(client_id, 0.0) > _MOST_IN_PADDING
            and len(witnesses) >= _FEWEST_WITNESSES
            and float(np.median(witnesses)) < _USUAL_IN_PADDING
        ):
            named[client_id] = (
                f"where its views are black its features vary {traces[client_id]:.0%} as much as where they "
                f"show an image, the others' {float(np.median(witnesses)):.0%}: they are not of these views"
            )
    return named


def _trace(evidence: Evidence) -> float | None:
    """Covariance in the padding as a share of that in the image; None where there is nothing to see."""
    enough = evidence.padded_samples >= _FEWEST_PADDED
    if not enough or evidence.image_covariance < _LEAST_IMAGE_COVARIANCE:
        return None
    return evidence.padding_covariance / evidence.image_covariance


def _mislabelled(
    evidence: Mapping[str, Evidence],
    first: Mapping[str, Evidence],
    trusted: Collection[str],
    trained_on: Mapping[str, Evidence] | None,
) -> dict[str, str]:
    """Newcomers' labels against everybody's first upload: later, extractors have drifted apart.

    One after another, the worst first: its labels spoil the others' comparison too.
    """
    compared = dict(trained_on) if trained_on is not None else {**evidence, **first}
    most = _MOST_DEFICIT if trained_on is None else _MOST_DEFICIT_IN_VALIDATION
    newcomers = {client_id for client_id in evidence if client_id not in first and client_id not in trusted}
    named: dict[str, str] = {}
    while newcomers and len(compared) > FEWEST_PEERS:
        if trained_on is None:
            agreement = label_agreement(compared)
        else:
            agreement = validation_agreement(compared, {each: evidence[each] for each in newcomers})
        suspects = [
            (agreement[client_id].deficit, client_id)
            for client_id in newcomers & agreement.keys()
            if agreement[client_id].ratio < _LEAST_AGREEMENT
            and agreement[client_id].deficit > most
            and agreement[client_id].strangeness < _MOST_STRANGENESS
        ]
        if not suspects:
            break
        worst = max(suspects)[1]
        its = agreement[worst]
        named[worst] = (
            f"its labels do not go with its features: its {its.num_samples} samples are more like the other "
            f"devices' of the same label than {its.standing:.0%} of those of another, expected about "
            f"{its.expected:.0%}, 50% is chance"
        )
        compared.pop(worst, None)
        newcomers.discard(worst)
    return named
