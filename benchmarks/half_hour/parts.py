"""How a part of the first half hour ended: a line of parts.json, beside the parts' own results.

python -m half_hour.parts FOLDER PART CODE SECONDS LIMIT -- COMMAND...

Exit status 1 unless the part ended well.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from output import write

TIMED_OUT = (124, 137)
"""Exit statuses of `timeout`: ended, and killed when it did not end."""


def main(words: list[str]) -> int:
    folder, part, code, seconds, limit = Path(words[0]), words[1], int(words[2]), int(words[3]), int(words[4])
    file = folder / "parts.json"
    parts = json.loads(file.read_text()) if file.is_file() else {}
    parts[part] = {
        "ended": "well" if code == 0 else "timed out" if code in TIMED_OUT else f"with exit status {code}",
        "seconds": seconds, "limit_seconds": limit, "at": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": [word.replace(str(folder), "OUT") for word in words[words.index("--") + 1 :]],
        "result": (folder / f"{part}.json").is_file(),
    }  # fmt: skip
    write(file, parts)
    print(f"=== {part} ended {parts[part]['ended']} after {seconds} s")
    return int(code != 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
