"""A plan whose handlers use SQLAlchemy as any code does: global engines, models, sessions."""

import os

from sqlalchemy import ForeignKey, String, create_engine, exc, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from machine import Plan

plan = Plan("sqlalchemy_client", clients=["sqlalchemy"])
POSTGRES = os.environ.get("DSN", "postgresql://postgres@127.0.0.1:9/postgres").replace(
    "ql://", "ql+psycopg://"
)
FILE = os.environ.get("DATABASE", "/nowhere/app.db")


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author", order_by="Book.title")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50))
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


engine = create_engine(POSTGRES, pool_size=2, pool_pre_ping=True)
async_engine = create_async_engine(POSTGRES)
file_engine = create_async_engine(f"sqlite+aiosqlite:///{FILE}")


@plan.state("write.books", side_effects="apply_side_effect", idempotency="books")
def write(ctx, io, rec):
    with Session(engine) as session:
        ann = Author(name="ann", books=[Book(title="one"), Book(title="two")])
        session.add_all([ann, Author(name="bob")])
        session.commit()
        ctx["lazy"] = [book.title for book in ann.books]
        with session.begin_nested():
            session.add(Book(title="three", author=ann))
        try:
            with session.begin_nested():
                session.add(Author(name="ann"))
        except exc.IntegrityError as error:
            ctx["orig"] = [type(error.orig).__name__, error.orig.sqlstate]
        session.commit()
    with engine.begin() as connection:
        made = connection.execute(insert(Author).returning(Author.name), [{"name": "cid"}, {"name": "dan"}])
        ctx["returned"] = sorted(row.name for row in made)


@plan.state("read.books", side_effects="read_only_io", after=[write])
async def read(ctx, io, rec):
    async with AsyncSession(async_engine) as session:
        query = select(Author).options(selectinload(Author.books)).order_by(Author.name)
        ctx["books"] = {one.name: [book.title for book in one.books] for one in await session.scalars(query)}
    async with async_engine.connect() as connection:
        ctx["count"] = await connection.scalar(select(func.count()).select_from(Book))
        try:
            await connection.execute(text("SELECT nothing FROM book"))
        except exc.ProgrammingError as error:
            ctx["missing"] = type(error.orig).__name__


@plan.state("write.file", side_effects="apply_side_effect", idempotency="file", after=[read])
async def write_file(ctx, io, rec):
    async with AsyncSession(file_engine) as session:
        session.add(Author(name="eve", books=[Book(title="four")]))
        await session.commit()
        ctx["file"] = await session.scalar(select(Book.title))
