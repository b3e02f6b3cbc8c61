"""The models refuse what the API server refuses: the same table of manifests, without a server."""

import pytest

from backstop.api.problems import InputError
from tests.crds.manifests import Manifest, invalid, refuse_like_the_models, valid


@pytest.mark.parametrize("manifest", valid(), ids=lambda m: m.name)
def test_a_valid_manifest_is_accepted(manifest: Manifest) -> None:
    for document in manifest.documents:
        refuse_like_the_models(document)


@pytest.mark.parametrize("manifest", [m for m in invalid() if m.python], ids=lambda m: m.name)
def test_a08_an_invalid_manifest_is_refused_in_one_sentence(manifest: Manifest) -> None:
    with pytest.raises(InputError) as refused:
        refuse_like_the_models(manifest.documents[-1])
    assert str(refused.value) == manifest.python


@pytest.mark.parametrize("manifest", [m for m in invalid() if not m.python], ids=lambda m: m.name)
def test_what_only_a_change_makes_invalid_is_valid_by_itself(manifest: Manifest) -> None:
    for document in manifest.documents:
        refuse_like_the_models(document)
