"""The former module of BottleneckFeatures, which older pickles name. Nothing else imports it."""

from pipeline.python.transformer import BottleneckFeatures as BottleneckFeatures
