"""Embedded data set: faces drawn procedurally, forged in four ways, in the official FF++ layout.

    python -m data_prep.toy --out DIR [--identities=120] [--frames=8] [--size=128] [--seed=0] [--workers=2]
    python -m data_prep.toy.sheet DIR --out sheet.png

`identity` draws who a person is and gives the landmarks, `texture` bakes skin and hair, `motion` moves head,
face, light and camera, `render` makes frames, `manipulate` forges them, `generate` writes the files.
"""
