"""Has AsyncAPI's own parser check `edge/schemas/asyncapi.yaml`: python -m tools.asyncapi_check

Run by hand after a change of that document; it needs Node.js and fetches the parser from npm. The tests check what
the parser does not: that examples and real messages fit the schemas, and that the topics are those of the device.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "edge" / "schemas" / "asyncapi.yaml"
PARSER = "@asyncapi/parser@3.6.3"

_PROGRAM = """
import { Parser, fromFile } from '@asyncapi/parser';
const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();
const severities = ['error', 'warning', 'information', 'hint'];
for (const found of diagnostics)
  console.log(`${severities[found.severity]}: ${found.path.join('.')}: ${found.message}`);
if (document)
  console.log(`AsyncAPI ${document.version()}: ${document.channels().all().length} channels, ` +
    `${document.operations().all().length} operations, ${document.messages().all().length} messages`);
process.exit(document && !diagnostics.some(found => found.severity < 2) ? 0 : 1);
"""


def main() -> int:
    """Print what the parser finds; give 0 if it finds neither an error nor a warning."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        sys.exit("npm: is not installed (Debian: apt install npm)")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "check.mjs")
        program.write_text(_PROGRAM, encoding="utf-8")
        install = [
            "npm",
            "install",
            "--prefix",
            folder,
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            PARSER,
        ]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
        return subprocess.run(["node", program, DOCUMENT], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
