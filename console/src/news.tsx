// Short news about what was done, read out by screen readers and shown for a few seconds.
import { useEffect, useState } from "preact/hooks";
import { Icon } from "./icons";

interface Item { id: number; text: string }

let show: (text: string) => void = () => {};
let next = 0;

export function announce(text: string) {
  show(text);
}

export function News() {
  const [items, setItems] = useState<Item[]>([]);
  useEffect(() => {
    show = (text) => {
      const id = next++;
      setItems((items) => [...items.slice(-2), { id, text }]);
      setTimeout(() => setItems((items) => items.filter((item) => item.id !== id)), 6000);
    };
    return () => void (show = () => {});
  }, []);
  return (
    <div class="news" role="status" aria-live="polite">
      {items.map((item) => <p key={item.id}><Icon name="good" />{item.text}</p>)}
    </div>
  );
}
