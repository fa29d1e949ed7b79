"""Two providers that demand much of the files they are given: `picky` hosts local ones, `proud` does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from runner.providers import registry
from runner.providers.description import Demands, Field, Hosting, Mode, Model, Provider, Slot

PICTURE = Demands(("image/jpeg", "image/png", "image/bmp"), 20_000, min_side=300, max_ratio=Decimal("2.5"))
CLIP = Demands(("video/mp4", "video/webm"), max_seconds=Decimal(15))
SOUND = Demands(("audio/mpeg", "audio/wav"), max_seconds=Decimal("7.5"))


async def never(*_: Any) -> Any:
    raise AssertionError("no request is made here")


MODEL = Model(
    "muse",
    "video",
    "/api/v1/muse",
    {"prompt": Field("prompt", required=True)},
    modes=(
        Mode("text"),
        Mode("frame", {"first_frame": Slot("image", 1, demands=PICTURE)}),
        Mode(
            "many",
            {
                "images": Slot("images", most=9, many=True, demands=PICTURE),
                "videos": Slot("videos", most=3, many=True, demands=CLIP),
                "audios": Slot("audios", most=3, many=True, demands=SOUND),
            },
            least=1,
        ),
        Mode("free", {"last_frame": Slot("last")}),
    ),
    model_field="model",
)
PICKY = Provider(
    "picky",
    "https://picky.example",
    (MODEL,),
    never,
    never,
    guarantee="none",
    hosting=Hosting(("images", "videos", "audios"), (*PICTURE.media_types, *CLIP.media_types), 15_000, never),
)
PROUD = replace(PICKY, name="proud", base_url="https://proud.example", hosting=None)


def with_picky() -> Mapping[str, Provider]:
    return {**registry(), "picky": PICKY, "proud": PROUD}
