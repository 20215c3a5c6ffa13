"""`python -m pipelines` is the command `replit`."""

from pipelines.start import main

if __name__ == "__main__":
    main()
