import pickle
from typing import Any

import pytest

from farcall.wire import errors

SAMPLES: dict[type, tuple[Any, ...]] = {
    errors.ServiceUnreachable: ("http://localhost:5000", "connection refused"),
    errors.CertificateRefused: ("https://localhost:5000", "its certificate expired"),
    errors.LoginFailed: ("http://localhost:5000", "access_denied", "not you"),
    errors.LoginNotOffered: ("http://localhost:5000", "login with a code"),
    errors.CredentialRefused: ("endpoint 1", "revoked"),
    errors.VersionMismatch: ("SDK", "0.1.0", "0.2.0"),
    errors.TaskPending: ("11111111-2222-4333-8444-555555555555", "running"),
    errors.TaskCancelled: ("11111111-2222-4333-8444-555555555555", "by its owner"),
}


def every_class() -> list[type[errors.FarcallError]]:
    return sorted((getattr(errors, n) for n in errors.__all__ if n[0].isupper()), key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", every_class(), ids=lambda cls: cls.__name__)
def test_an_error_survives_a_pickle_round_trip(cls: type[errors.FarcallError]) -> None:
    error = cls(*SAMPLES.get(cls, ("what happened, to which id, what to do",)))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error)
    assert again.args == error.args


@pytest.mark.parametrize(
    "cls", [c for c in every_class() if issubclass(c, errors.ApiError)], ids=lambda cls: cls.__name__
)
def test_an_api_error_is_rebuilt_from_its_document(cls: type[errors.ApiError]) -> None:
    document = cls("endpoint 7 is gone", {"authorization_parameters": {"prompt": "login"}}).to_document()
    again = errors.error_from_document(cls.status, document)
    assert type(again) is cls
    assert again.message == "endpoint 7 is gone"
    assert again.wire_code == cls.code
    assert again.detail == {"authorization_parameters": {"prompt": "login"}}


def test_codes_are_unique_among_api_errors() -> None:
    codes = [cls.code for cls in every_class() if issubclass(cls, errors.ApiError)]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("status", "document", "cls", "message"),
    [
        (404, {"code": "SOMETHING_NEW", "message": "gone"}, errors.NotFound, "gone"),
        (418, {"detail": "teapot"}, errors.ApiError, "teapot"),
        (422, {"detail": [{"loc": []}], "reason": []}, errors.InvalidRequest, "Unprocessable"),
        (502, None, errors.ApiError, "Unprocessable"),
        (403, [1, 2], errors.Forbidden, "Unprocessable"),
        # A code that belongs to another status is not trusted.
        (500, {"code": "ENDPOINT_NOT_FOUND", "message": "x"}, errors.ApiError, "x"),
    ],
)
def test_strange_documents_still_give_an_error_with_text(
    status: int, document: object, cls: type, message: str
) -> None:
    error = errors.error_from_document(status, document, "Unprocessable")
    assert type(error) is cls
    assert str(error) == message
    assert error.http_status == status
