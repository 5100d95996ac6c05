"""`farl` and `python -m experiments`. Neither runs code from the current folder."""

from experiments.search_path import leave_current_folder_out


def main() -> None:
    """Run the console script, and end the process with its exit code."""
    leave_current_folder_out()
    from experiments.entry import entry

    entry()


if __name__ == "__main__":
    main()
