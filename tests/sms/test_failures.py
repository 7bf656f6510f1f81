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
        # TP-FCS: no subscription, bad and barred address, duplicate; not: busy, system failure, full, unspecified.
        ((0xC1, 0xC3, 0xC4, 0xC5), Failure.PERMANENT),
        ((0x8F, 0x9F, 0xAF, 0xC0, 0xC2, 0xD0, 0xD3, 0xD5, 0xE0, 0xFF), Failure.TEMPORARY),
    ],
)
def test_what_a_code_means(codes: tuple[int | None, ...], failure: Failure) -> None:
    assert {failure_of(code) for code in codes} == {failure}
