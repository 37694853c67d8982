"""WSGI entry point."""

from label_studio_ml.api import init_app
from model import KshotBackend

app = init_app(model_class=KshotBackend)
