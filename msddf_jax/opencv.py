"""The one import of `cv2`, with a message that says what to install where its system libraries are missing."""

try:
    import cv2
except ImportError as error:
    if "cannot open shared object file" in str(error):
        message = f"cv2 cannot load ({error}): run `apt-get install libgl1 libglib2.0-0`"
    else:
        message = f"cv2 cannot load ({error}): run `pip install 'opencv-contrib-python>=4.11,<5'`"
    raise ImportError(message) from error

__all__ = ["cv2"]
