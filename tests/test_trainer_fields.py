"""Fields of training.trainer: those TRL has, and which of them settings of our own decide."""

from rag_ft.recipe.trainer_fields import FIXED, OWNED, trainer_fields


def test_trainer_fields_are_those_of_the_installed_trl():
    import dataclasses

    from trl import SFTConfig

    assert trainer_fields() == {
        field.name for field in dataclasses.fields(SFTConfig) if field.init and field.name[0] != "_"
    }
    assert OWNED.keys() | FIXED.keys() <= trainer_fields()


def test_owned_fields_point_at_settings_that_exist():
    from rag_ft.recipe.fields import every_path

    names = {".".join(map(str, path)) for path in every_path()}
    assert {key for keys in OWNED.values() for key in keys.split(" and ")} <= names
