"""The short digest, which stands in records and file names: its values must never change."""

import hashlib

import pytest

from spatial_functa_pipeline.digest import short_digest


def test_it_is_the_beginning_of_the_sha256_of_all_chunks():
    assert short_digest([b"spatial ", b"functa"]) == hashlib.sha256(b"spatial functa").hexdigest()[:16]
    assert short_digest([b"spatial functa"]) == "70df6aaa62e275dc"
    assert short_digest([]) == "e3b0c44298fc1c14"


def test_bytes_alone_are_no_chunks():
    with pytest.raises(TypeError):
        short_digest(b"spatial functa")
