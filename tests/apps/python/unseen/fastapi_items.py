"""FastAPI: the examples of its pages "Testing" (the extended one, without its token) and "Background Tasks"."""

from fastapi import BackgroundTasks, FastAPI, HTTPException
from pydantic import BaseModel

fake_db = {
    "foo": {"id": "foo", "title": "Foo", "description": "There goes my hero"},
}
app = FastAPI()


class Item(BaseModel):
    id: str
    title: str
    description: str | None = None


@app.get("/items/{item_id}", response_model=Item)
async def read_main(item_id: str):
    if item_id not in fake_db:
        raise HTTPException(status_code=404, detail="Item not found")
    return fake_db[item_id]


@app.post("/items/")
async def create_item(item: Item) -> Item:
    if item.id in fake_db:
        raise HTTPException(status_code=409, detail="Item already exists")
    fake_db[item.id] = item.model_dump()
    return item


def write_notification(email: str, message=""):
    with open("log.txt", mode="w") as email_file:
        email_file.write(f"notification for {email}: {message}")


@app.post("/send-notification/{email}")
async def send_notification(email: str, background_tasks: BackgroundTasks):
    background_tasks.add_task(write_notification, email, message="some notification")
    return {"message": "Notification sent in the background"}
