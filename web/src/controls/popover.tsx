import { useEffect, useRef, useState, type ReactNode } from 'react';

/** A button with a box below it; Escape, and a click elsewhere, close it. */
export function Popover({ label, active, children }: { label: ReactNode; active?: boolean; children: (close: () => void) => ReactNode }) {
  const [isOpen, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const close = () => {
    setOpen(false);
    button.current?.focus();
  };
  useEffect(() => {
    if (!isOpen) return;
    const outside = (event: Event) => !root.current?.contains(event.target as Node) && setOpen(false);
    const escape = (event: KeyboardEvent) => event.key === 'Escape' && close();
    addEventListener('pointerdown', outside);
    addEventListener('keydown', escape);
    return () => {
      removeEventListener('pointerdown', outside);
      removeEventListener('keydown', escape);
    };
  }, [isOpen]);
  return (
    <div className="popover" ref={root}>
      <button type="button" ref={button} className={active ? 'drop active' : 'drop'} aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
        {label} <span aria-hidden="true">▾</span>
      </button>
      {isOpen && <div className="box">{children(close)}</div>}
    </div>
  );
}
