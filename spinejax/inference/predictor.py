"""Former names; goes away as soon as nothing uses them."""
from spinejax.inference.load import Predictor, create_predictor, load_predictor  # noqa: F401
from spinejax.inference.predict import (  # noqa: F401
    Prediction, known_spacing, measure_prediction, predict_images, to_original_size)
from spinejax.inference.restore import Run, restore_run  # noqa: F401
from spinejax.inference.volumes import VolumePrediction, predict_volume  # noqa: F401


def restore_variables(workdir, config, model, checkpoint='best'):
  run = restore_run(workdir, checkpoint)
  return run.variables, run.step
