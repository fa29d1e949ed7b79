"""What SeeGen charges, in credits (its document: "Pricing", "Cost calculation", and the sections of the models).

Where the provider measures something itself, a plan can only give an interval; the exact price follows from the
measured seconds by the functions here.

The document contradicts itself in one place: its answer of a finished standalone upscale tells 1200 credits for 30 s to
4K, where its own table (50 a second) gives 1500. The table is believed; a charge is booked as it is seen anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, Decimal

from runner.ledger import Price
from runner.providers.description import Values

Seconds = Decimal | int

# By model and outputResolution: a second without and with reference videos. sd2-fast renders no native 1080p.
VIDEO = {("sd2", "720p"): (40, 30), ("sd2", "1080p"): (100, 75), ("sd2-fast", "720p"): (32, 24)}
ADDED_UPSCALE = {"1080p": 20, "2k": 30, "4k": 40}  # by upscaleResolution, a second of output, for both models
HAPPYHORSE = {"720p": 32, "1080p": 60}
IMAGE = {
    ("1k", "medium"): 15, ("1k", "high"): 70,
    ("2k", "medium"): 35, ("2k", "high"): 125,
    ("4k", "medium"): 60, ("4k", "high"): 230,
}  # fmt: skip
UPSCALE = {"1080p": 25, "2k": 38, "4k": 50}
LONGEST_REFERENCE = 15  # seconds of one reference video
SHORTEST_UPSCALE, LONGEST_UPSCALE = 5, 600  # seconds; a shorter source is billed as 5 s


def video_credits(
    model: str,
    seconds: Seconds,
    resolution: str = "720p",
    upscale: str | None = None,
    measured: Sequence[Seconds] = (),
) -> Decimal:
    """The exact price of one sd2 or sd2-fast video of `seconds`; `measured` are the provider's own seconds of each
    reference video.

    Output and input seconds cost the same: each input is rounded up to whole seconds, and all together count as at
    least two thirds of the output, rounded up. An added upscale costs by the output alone.
    """
    without, with_videos = VIDEO[model, resolution]
    rate = with_videos if measured else without
    added = ADDED_UPSCALE[upscale] if upscale else 0
    return (seconds + _billed_inputs(seconds, measured)) * rate + Decimal(seconds * added)


def _billed_inputs(seconds: Seconds, measured: Sequence[Seconds]) -> Decimal:
    if not measured:
        return Decimal(0)
    least = _whole(Decimal(2 * seconds) / 3)
    return max(least, sum((_whole(each) for each in measured), Decimal(0)))


def _whole(seconds: Seconds) -> Decimal:
    return Decimal(seconds).to_integral_value(ROUND_CEILING)


def video_price(model: str) -> Callable[[Values], Price]:
    """The price of a request to `model`; with reference videos the interval between the shortest and longest ones."""

    def price(values: Values) -> Price:
        def credits(each: int) -> Decimal:
            measured = [each] * len(values.get("videoUrls", ()))
            upscale = values.get("upscaleResolution")
            return video_credits(model, values["duration"], values["outputResolution"], upscale, measured)

        low, high = credits(1), credits(LONGEST_REFERENCE)
        note = "the provider measures the reference videos: 1 to 15 seconds each are billed"
        return Price(low, high, "" if low == high else note)

    return price


def happyhorse_price(values: Values) -> Price:
    """By the second of output; references are not billed."""
    return Price.exactly(values["duration"] * HAPPYHORSE[values["outputResolution"]])


def image_price(values: Values) -> Price:
    return Price.exactly(IMAGE[values["resolution"], values["quality"]])


def upscale_credits(target: str, seconds: Seconds) -> Price:
    """What upscaling a source of `seconds` costs, 5 at least. Whether part of a second is rounded up no document says:
    then it is an interval."""
    billed = max(Decimal(SHORTEST_UPSCALE), Decimal(seconds))
    low, high = billed * UPSCALE[target], _whole(billed) * UPSCALE[target]
    return Price(low, high, "" if low == high else "whether part of a second is rounded up is not documented")


def upscale_price(values: Values) -> Price:
    """Nobody here knows how long the source is: from the shortest that is billed to the longest that is taken."""
    target = values["targetResolution"]
    low, high = upscale_credits(target, SHORTEST_UPSCALE).low, upscale_credits(target, LONGEST_UPSCALE).high
    return Price(low, high, "the provider measures the source: 5 to 600 seconds are billed")
