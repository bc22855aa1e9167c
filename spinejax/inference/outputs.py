"""Former names; goes away as soon as nothing uses them."""
from spinejax.inference.files import Outcome, predict_files  # noqa: F401
