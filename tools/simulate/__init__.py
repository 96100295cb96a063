"""Clips with known truth: a face photo on the ICT face model, moved in three dimensions.

Who moves: ict (the model and its fit) -> head, skin, view (what the photo shows of it) -> rig (a photo that can be
moved) -> people (rigs of a photo folder). What happens: timeline (curves and truth) -> expressions, confusers ->
script. What the camera sees: sensor, codec -> film -> clips (video), signals (training material), sheet (to look at).
tabulated makes the same signals without rendering each frame; compare shows both side by side.
"""
