"""Did an upgrade change a model, where on the way from image to answer, and does it matter?

``record`` measures before, ``compare`` after; see docs/gate.md. The parts: ``stages`` reads one prompt on its way
through the model, ``noise`` what the same reading varies by, ``record`` keeps both with the answers, ``compare``
finds the first stage that differs, ``verdict`` decides from paired scores.
"""
