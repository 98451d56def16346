"""`dpjax <command> …`: the same as `python -m dpjax.<command> …`."""

import runpy
import sys

# Each command with the line that `dpjax --help` shows.
COMMANDS = {
    "convert": "demonstrations in another format -> RLDS",
    "check": "what is wrong with data or config, before training",
    "train": "train a policy",
    "evaluate": "score a policy in its simulator",
    "validate": "score checkpoints on held-out demonstrations",
    "sample": "action chunks for one observation, timed",
    "serve": "a policy over the network, for robots",
    "demos": "make demonstrations with a policy or a scripted expert",
    "export": "a policy as one file for other programs",
    "import_weights": "a checkpoint of another library -> a run folder",
    "export_weights": "now: dpjax export lerobot",
}


def usage() -> str:
    """The text of `dpjax --help`."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    return "\n".join(["usage: dpjax <command> [options]; dpjax <command> --help", "", *lines])


def main() -> None:
    """Runs the command that the first argument names, as a module of its own."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        print(usage())
        return
    if name == "--version":
        import dpjax

        print(f"dpjax {dpjax.__version__}")
        return
    if name not in COMMANDS:
        from dpjax.core.errors import choices

        print(
            f"dpjax: error: {name!r} is not a command; {choices(name, COMMANDS)}.", file=sys.stderr
        )
        sys.exit(2)
    # The command sees the arguments that it would see as `python -m dpjax.<command>`.
    del sys.argv[1]
    runpy.run_module(f"dpjax.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
