"""How much of a machine those who draw on the page may take."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what is asked, and on what is kept in memory.

    Attributes:
      waiting: drawings that may wait behind the one that is drawn.
      watchers: streams of progress that may be open.
      prompt: characters of a prompt, and of a negative prompt.
      pictures: of one drawing.
      steps: of one stage.
      repeats: of one step beside known pixels, RePaint's r.
      upload: bytes of a picture or a mask that is sent.
      pixels: of a picture or a mask that is sent.
      kept: finished drawings whose pictures stay.
      kept_bytes: of their pictures together.
      programs: kinds of drawings (`programs.Programs`) whose compiled programs stay.
    """

    waiting: int = 8
    watchers: int = 64
    prompt: int = 1000
    pictures: int = 8
    steps: int = 1000
    repeats: int = 20
    upload: int = 8 << 20
    pixels: int = 1 << 22
    kept: int = 64
    kept_bytes: int = 256 << 20
    programs: int = 32

    def __post_init__(self):
        """Refuse limits under which nothing can be drawn."""
        for field in dataclasses.fields(self):
            low = 0 if field.name == "waiting" else 1
            if getattr(self, field.name) < low:
                raise ValueError(
                    f"serve: {field.name} must be >= {low}, got "
                    f"{getattr(self, field.name)}."
                )

    @property
    def body(self) -> int:
        """Bytes of a request: a picture and a mask in base64, and the settings."""
        return 2 * (4 * self.upload // 3) + (1 << 18)
