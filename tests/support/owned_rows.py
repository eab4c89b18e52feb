"""What one worker of the workload knows about its rows of a table, and the SQL that addresses them.

Knows nothing of connections: workload.py sends the statements, and rolls back here what it rolls back there.
"""

import random
from dataclasses import dataclass, field

from shapes import Column, Shape


class Numbers:
    """A set of row numbers with random choice, removal in constant time, and undo."""

    def __init__(self, numbers: list[int]) -> None:
        self.items = list(numbers)
        self.at = {number: index for index, number in enumerate(self.items)}

    def __len__(self) -> int:
        return len(self.items)

    def __contains__(self, number: int) -> bool:
        return number in self.at

    def add(self, number: int) -> None:
        self.at[number] = len(self.items)
        self.items.append(number)

    def remove(self, number: int) -> None:
        index, last = self.at.pop(number), self.items.pop()
        if last != number:
            self.items[index] = last
            self.at[last] = index

    def choose(self, rng: random.Random, count: int) -> list[int]:
        """Distinct numbers, at most `count`. Half of the time neighbours of each other in age, as in real life."""
        count = min(count, len(self.items))
        if count == 0:
            return []
        if count > 1 and rng.random() < 0.5:
            start = rng.randrange(len(self.items) - count + 1)
            return self.items[start : start + count]
        return rng.sample(self.items, count)


@dataclass
class OwnedRows:
    """What one worker knows of one table."""

    shape: Shape
    worker: int
    workers: int
    alive: Numbers
    dead: Numbers
    next_number: int
    columns: list[Column]
    pool: list[tuple[str, ...]] = field(default_factory=list)
    # Reverses what the open transaction did, newest last.
    undo: list[tuple[str, int]] = field(default_factory=list)

    def fresh(self, rng: random.Random) -> int:
        """A number without a row: one that was deleted before, or one never used."""
        if len(self.dead) and rng.random() < 0.3:
            return self.dead.choose(rng, 1)[0]
        number = self.next_number
        self.next_number += self.workers
        self.dead.add(number)
        return number

    def bring_to_life(self, number: int) -> None:
        self.dead.remove(number)
        self.alive.add(number)
        self.undo.append(("alive", number))

    def kill(self, number: int) -> None:
        self.alive.remove(number)
        self.dead.add(number)
        self.undo.append(("dead", number))

    def roll_back_to(self, mark: int) -> None:
        while len(self.undo) > mark:
            became, number = self.undo.pop()
            source, target = (self.alive, self.dead) if became == "alive" else (self.dead, self.alive)
            source.remove(number)
            target.add(number)

    def values(self, rng: random.Random) -> tuple[str, ...]:
        if self.shape.value_pool:
            while len(self.pool) < self.shape.value_pool:
                self.pool.append(tuple(column.literal(rng) for column in self.columns))
            return rng.choice(self.pool)
        return tuple(column.literal(rng) for column in self.columns)

    def row(self, rng: random.Random, number: int, places: list[int]) -> str:
        values = self.values(rng)
        return "(" + ",".join((*self.shape.key(number), str(number), *(values[place] for place in places))) + ")"

    def insert_into(self, verb: str, rng: random.Random, numbers: list[int], leaves_out: bool = False) -> str:
        """With `leaves_out`, some columns that have a default get no value."""
        places = list(range(len(self.columns)))
        if leaves_out and rng.random() < 0.6:
            places = [place for place in places if "NOT NULL" in self.columns[place].definition or rng.random() < 0.5]
        names = ",".join(f"`{name}`" for name in (*self.shape.key_columns, "number", *(self.columns[place].name for place in places)))
        return f"{verb} INTO `{self.shape.name}` ({names}) VALUES " + ",".join(self.row(rng, number, places) for number in numbers)

    def document_assignments(self, rng: random.Random) -> str | None:
        """A change of a part of a JSON document, which may be logged as a difference; NULL and scalars become documents."""
        documents = [column.name for column in self.columns if column.definition.startswith("JSON")]
        if not documents:
            return None
        name = rng.choice(documents)
        document = f"IF(JSON_TYPE(`{name}`) IN ('OBJECT', 'ARRAY'), `{name}`, JSON_OBJECT('list', JSON_ARRAY(1, 2), 'pad', REPEAT('p', 200)))"
        changed = rng.choice(
            [
                f"JSON_SET(`{name}`, '$.list', JSON_ARRAY(1, {rng.randrange(99)}, DATE'2026-11-28'))",
                f"JSON_SET(`{name}`, '$.\"a key\"', CAST({rng.randrange(9999)}.50 AS DECIMAL(10, 3)), '$.n', {rng.randrange(1 << 40)})",
                f"JSON_ARRAY_INSERT(`{name}`, '$.list[0]', x'00FF')",
                f"JSON_REMOVE(`{name}`, '$.n', '$.list[0]')",
                f"JSON_REPLACE(`{name}`, '$.list[1]', 'é😀', '$.n', NULL)",
                document,
            ]
        )
        return f"`{name}` = {changed}"

    def assignments(self, rng: random.Random) -> str:
        """New values for some columns; the same in every row, but for counters."""
        changed = rng.sample(range(len(self.columns)), rng.randint(1, min(len(self.columns), 6)))
        values = self.values(rng)
        parts = [f"`{self.columns[index].name}` = {values[index]}" for index in changed]
        if not self.shape.value_pool:
            parts = [part for part in parts if not part.startswith("`counter`")]
            parts.append("`counter` = (`counter` + 1) % 4000000000")
        return ", ".join(parts)

    def key_assignments(self, number: int) -> str:
        keys = ", ".join(f"`{name}` = {value}" for name, value in zip(self.shape.key_columns, self.shape.key(number)))
        return f"{keys}, `number` = {number}"
