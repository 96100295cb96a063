# A virtual environment with everything that microedge asks for, but without microedge itself, which changes.
[ -e /opt/recipe/authorities.pem ] && export PIP_CERT=/opt/recipe/authorities.pem
python3 -m venv --system-site-packages /opt/microedge
# PyPI has no lgpio wheel for Python 3.13, and without PYPI=1 its source expects a C library of that name.
PYPI=1 /opt/microedge/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --no-binary lgpio \
  -r /opt/recipe/requirements.txt
# picamera2 imports it although nothing is shown here; Debian has no such package.
install -m 644 /opt/recipe/pykms.py /opt/microedge/lib/python3.13/site-packages/pykms.py
