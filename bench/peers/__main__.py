"""`python -m bench.peers`: see `section`."""

from bench.figures import say, standalone
from bench.peers import section

if __name__ == "__main__":
    say("peers")
    standalone(section.run, section.__doc__)
