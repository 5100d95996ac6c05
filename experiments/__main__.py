"""`farl` and `python -m experiments`: no code comes from the folder that one stands in."""

from experiments.search_path import leave_current_folder_out


def main() -> None:
    """Entry point of the console script; ends the process with the exit code."""
    leave_current_folder_out()
    from experiments.entry import entry

    entry()


if __name__ == "__main__":
    main()
