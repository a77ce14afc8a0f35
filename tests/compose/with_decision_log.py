"""`with_decision_log.py STACK.json COMMAND...`: have the scenarios read ext-authz's log with this command."""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    file = Path(sys.argv[1])
    values = json.loads(file.read_text())
    values["decision_log_command"] = sys.argv[2:]
    file.write_text(json.dumps(values))
