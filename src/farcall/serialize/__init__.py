"""Functions, arguments and results to text and back, in the formats of the wire protocol.

`ComputeSerializer` is what users see; the strategies are in `strategies`, pickling in `dillpickle`, exceptions
that cross from a worker to the caller in `exceptions`. The service never imports this part.
"""

from farcall.serialize.allowlist import AllowlistWildcard, parse_allowlist
from farcall.serialize.base import SerializationStrategy, StrategyLike, import_path_of, strategy_from
from farcall.serialize.serializer import DEFAULT_STRATEGY_CODE, DEFAULT_STRATEGY_DATA, ComputeSerializer
from farcall.serialize.strategies import (
    AllCodeStrategies,
    AllDataStrategies,
    CombinedCode,
    DillCode,
    DillCodeSource,
    DillCodeTextInspect,
    DillDataBase64,
    JSONData,
    PickleCode,
    PureSourceDill,
    PureSourceTextInspect,
)

__all__ = [
    "DEFAULT_STRATEGY_CODE",
    "DEFAULT_STRATEGY_DATA",
    "AllCodeStrategies",
    "AllDataStrategies",
    "AllowlistWildcard",
    "CombinedCode",
    "ComputeSerializer",
    "DillCode",
    "DillCodeSource",
    "DillCodeTextInspect",
    "DillDataBase64",
    "JSONData",
    "PickleCode",
    "PureSourceDill",
    "PureSourceTextInspect",
    "SerializationStrategy",
    "StrategyLike",
    "import_path_of",
    "parse_allowlist",
    "strategy_from",
]
