"""What another engine does to a lake table: deltalake merges its files."""

import argparse

import deltalake


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", required=True, help="the table's folder")
    parser.add_argument("--attempts", type=int, default=20, help="attempts that lose against the table's writer")
    arguments = parser.parse_args()
    for attempt in range(arguments.attempts):
        try:
            table = deltalake.DeltaTable(arguments.path)
            print(table.optimize.compact())
            return
        except deltalake.exceptions.CommitFailedError:
            if attempt + 1 == arguments.attempts:
                raise


main()
