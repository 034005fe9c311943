"""Settings of a library as they are typed: key=value."""

import pytest

from data_builders.errors import RagFtError
from rag_ft.app.options import library_settings
from rag_ft.app.settings import LibrarySettings


class TestOptions:
    def test_settings_are_read_from_texts(self) -> None:
        found = library_settings(["chunk_tokens=128", "ocr=off", "ocr_languages=kor+eng"])
        assert found == LibrarySettings(chunk_tokens=128, ocr="off", ocr_languages="kor+eng")

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (["chunk_token=128"], "chunk_token: there is no such setting of a library; did you mean chunk_tokens?"),
            (
                ["chunk_tokens=many"],
                "chunk_tokens=many: input should be a valid integer, unable to parse string as an integer.",
            ),
            (["chunk_tokens=3"], "chunk_tokens=3: input should be greater than or equal to 32."),
            (["chunk_tokens"], '"chunk_tokens" is no setting: write key=value, for example chunk_tokens=128.'),
            (["ocr=no"], "ocr=no: input should be 'auto' or 'off'."),
            (["overlap_tokens=200"], "overlap_tokens=200 is more than half of chunk_tokens=256"),
        ],
    )
    def test_mistake_is_told_with_its_key(self, given: list[str], said: str) -> None:
        with pytest.raises(RagFtError) as refusal:
            library_settings(given)
        assert str(refusal.value).startswith(said)
