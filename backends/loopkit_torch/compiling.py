"""How torch says that it could not compile. Imports of torch._dynamo take a second, so they wait until something is compiled."""


def failures() -> tuple[type[Exception], ...]:
    """What compiled code raises where it cannot be made: no C++ compiler, or many models of other sizes."""
    from torch._dynamo import exc

    return exc.TorchDynamoException, exc.FailOnRecompileLimitHit


def reason(error: Exception) -> str:
    """Its cause in one line."""
    cause = getattr(error, "inner_exception", error)
    return f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}"
