"""What the suite measures: training problems, and one module for each thing that can solve them.

``problem`` says what is trained, ``contender`` what a peer must do. Each peer imports its library when it is made, so
that none has another's threads in its process, and a library that is not installed is missing from its column only.
"""
