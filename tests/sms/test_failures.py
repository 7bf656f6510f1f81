# SPDX-License-Identifier: Apache-2.0
import pytest

from atrund.sms.failures import Failure, failure_of


@pytest.mark.parametrize(
    ("codes", "failure"),
    [
        ((1, 8, 10, 21, 28, 29, 30, 50, 69, 81, 95, 96, 97, 98, 99, 111), Failure.PERMANENT),
        (range(310, 319), Failure.SIM),
        ((331,), Failure.NETWORK),
        ((330,), Failure.CONFIGURATION),
        ((320, 321, 322), Failure.STORAGE),
        ((27, 38, 41, 42, 47, 127, 300, 302, 332, 500, 512, None), Failure.TEMPORARY),
        # TP-FCS (TS 23.040 9.2.3.22): a service centre that refuses now may take it later.
        (range(0x80, 0x100), Failure.TEMPORARY),
    ],
)
def test_what_a_code_means(codes: tuple[int | None, ...], failure: Failure) -> None:
    assert {failure_of(code) for code in codes} == {failure}
